"""The query port's gRPC front: the Open Inference Protocol, feedback, health and reflection."""
