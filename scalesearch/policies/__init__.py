"""Policies: which proxies are trained, how long and with how many seeds. Pure decisions on results; nothing is trained.

A policy is a generator: it yields a batch of trials with how to judge it, and is sent the decision when the whole batch
has ended, so that neither the order of arrival nor the number of slots nor an interruption can change a decision.
"""

from scalesearch.policies.play import Player as Player
from scalesearch.policies.play import Standing as Standing
from scalesearch.policies.play import most_trials as most_trials
from scalesearch.policies.rules import Rules as Rules
