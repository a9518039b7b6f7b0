"""The paper's figures and tables: `table.py` says what they are, `trainings.py` trains for them."""
