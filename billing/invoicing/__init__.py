"""Close billing periods into invoices, and keep each invoice's state."""
