"""`inference.GRPCInferenceService`: Triton's gRPC protocol, metered, in a process of its own."""
