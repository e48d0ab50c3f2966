"""The paper's tables and figures beside ours (Zhou et al., Tables I-X, Figures 3-8 and 10)."""
