"""Usage that did not pass the gateway: received once for ever, and corrected by overlays."""
