"""The workflow: what runs the chapters and builds the book. Nothing else in the library imports it."""
