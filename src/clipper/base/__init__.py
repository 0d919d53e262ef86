"""What any process of Clipper needs and that knows nothing of serving models: TLS, processes, files, sockets, logs."""
