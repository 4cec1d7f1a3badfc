"""What the paper theatre adds to training, behind the interface of `training.recipes`."""
