"""Streams: which rows of the data make micro-batch g of draw d."""

from data_pipeline.streams.lanes import LaneStream as LaneStream
from data_pipeline.streams.permutation import Permutation as Permutation
from data_pipeline.streams.samples import SampleStream as SampleStream
from data_pipeline.streams.stream import Draws as Draws
from data_pipeline.streams.stream import Stream as Stream
from data_pipeline.streams.vectors import Vectors as Vectors
from data_pipeline.streams.vectors import VectorStream as VectorStream
