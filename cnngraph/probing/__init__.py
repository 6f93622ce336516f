"""One training step of a network, measured layer by layer: do its gradients arrive?"""
