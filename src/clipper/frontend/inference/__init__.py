"""The Open Inference Protocol, version 2: the form of requests that KServe, Triton and others share."""
