"""How the pictures of :mod:`edge_kp.training.rendered` come about."""
