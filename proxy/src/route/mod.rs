//! Pairs, queues, custody, bounces, backoff: how what passed reaches its next hop.
