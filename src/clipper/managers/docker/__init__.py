"""What Docker is asked for: images, containers, and how it tells of them. Values in, values out."""
