"""A problem and its graph in the notations of others: LaTeX, MathML, Mermaid."""
