"""The parts that any process needs and that know nothing of serving models: TLS, processes, files, sockets, logs."""
