"""Scaling of a program: measured studies, laws fitted to them, and a model that predicts larger machines."""
