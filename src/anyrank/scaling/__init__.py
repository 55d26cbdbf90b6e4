"""How a program scales: studies, the laws that describe them, and a model that goes beyond the machine at hand."""
