"""Starting model containers and keeping them alive. ``reconcile/`` decides, the files beside it act."""
