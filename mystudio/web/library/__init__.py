"""The studio's folder: one folder for each person, with the artifacts of the commands and the clips behind them."""
