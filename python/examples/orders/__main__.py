"""What `python -m orders` runs: the demo."""

import sys

from orders.demo import main

sys.exit(main())
