"""The paper, one file each: tensor, decomposition, cosines, the manifold and its inverse, the networks."""
