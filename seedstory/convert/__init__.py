"""Making model folders of checkpoints that others have published."""
