"""The parts, each made from what the operator has chosen; `sydentish.app` joins them."""
