"""Consistent self-attention (StoryDiffusion): images of a story that see each other while they are drawn."""

from seedstory.consistent_attention.attention import ConsistentAttention, PageSharing
from seedstory.consistent_attention.bank import TokenBank
from seedstory.consistent_attention.settings import ConsistentAttentionSettings

__all__ = ["ConsistentAttention", "ConsistentAttentionSettings", "PageSharing", "TokenBank"]
