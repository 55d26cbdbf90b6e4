"""Templates of job scripts (Jinja2), one family per scheduler, and examples that need no anyrank to submit them."""
