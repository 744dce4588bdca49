"""What each agent could still gain by deviating (Def. 2), with confidence intervals."""
