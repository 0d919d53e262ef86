"""Reports as self-contained HTML files, without scripts or network access. It decides and does no I/O."""
