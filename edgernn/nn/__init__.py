"""Recurrent layers that are torch's own (same constructor, same state_dict) and more, and the model made of them."""

from ._model import SequenceModel as SequenceModel
from ._rnn import GRU as GRU
from ._rnn import LSTM as LSTM
from ._rnn import RNN as RNN
from ._rnn import Recurrent as Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent", "SequenceModel"]
