"""`penstock migrate --check`: the same requests to two servers, and what differs."""
