"""What goes on for as long as the server runs, whether anybody asks or not."""
