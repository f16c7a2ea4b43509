"""Reference networks under the names of their papers' layers. Each file needs torch alone and can be copied whole."""
