"""Problems that Python builds: expressions with the operators of the language, and `Problem` of statements."""
