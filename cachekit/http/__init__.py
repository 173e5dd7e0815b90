"""The HTTP caching policy, pure: which requests may be answered, which responses kept, for whom and for how long.

Nothing here knows a framework, a clock or a store. The integrations translate their requests and responses into
`messages`, ask `policy` and `conditional`, and keep what `page` makes of a response.
"""
