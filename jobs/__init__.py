"""Jinja2 templates of job scripts for each scheduler, and examples that users submit without `anyrank submit`."""
