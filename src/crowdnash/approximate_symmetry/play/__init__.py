"""alpha, beta and Lipschitz moduli estimated from play alone."""
