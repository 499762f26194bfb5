"""The Lua script that does one write in Redis; encoder/store.py says by which rule.

A script runs alone and whole, and touches one key. What it moves is decided here too: slots that stay are never sent.
"""

from __future__ import annotations

from schemas.state import NO_REVISION, OFFSET_AT, PARTITION_AT, REVISION_AT, TOPIC_AT


def _within_header(at: tuple[int, int]) -> str:
    """A range of the value as arguments of string.sub on the header: counted from 1, both ends included."""
    return f"{at[0] + 1}, {at[1]}"


def _within_found(at: tuple[int, int]) -> str:
    """Likewise on `found`, which begins at the revision."""
    return f"{at[0] - REVISION_AT[0] + 1}, {at[1] - REVISION_AT[0]}"


FOUND_BYTES = PARTITION_AT[1] - REVISION_AT[0]
assert REVISION_AT[1] == TOPIC_AT[0]
assert TOPIC_AT[1] == OFFSET_AT[0]
assert OFFSET_AT[1] == PARTITION_AT[0]

#: Answers encoder.store.Outcome.
WRITE = f"""
-- KEYS[1]  the state's key
-- ARGV[1]  what must be in the place of the revision; {len(NO_REVISION)} zero bytes: no value
-- ARGV[2]  '1': the value is damaged, its fence means nothing
-- ARGV[3]  the new header with its embedding
-- ARGV[4]  how many bytes of the value, header included, stay in place before the new slots; 0: none, the value is replaced
-- ARGV[5]  the new slots
-- ARGV[6]  the bytes of the new value, padding included
-- ARGV[7]  its time to live, ms; 0: for ever
local key, base, header, slots = KEYS[1], ARGV[1], ARGV[3], ARGV[5]
local kept, total, ttl_ms = tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[7])

local found = redis.pcall('GETRANGE', key, {REVISION_AT[0]}, {PARTITION_AT[1] - 1})
if type(found) == 'table' then
  found = ''  -- not a string: nothing of ours
end
local revision = string.sub(found, {_within_found(REVISION_AT)})
if ARGV[2] ~= '1' then
  if #found == {FOUND_BYTES}
    and string.sub(found, {_within_found(TOPIC_AT)}) == string.sub(header, {_within_header(TOPIC_AT)})
    and string.sub(found, {_within_found(PARTITION_AT)}) == string.sub(header, {_within_header(PARTITION_AT)})
    and struct.unpack('<i8', string.sub(found, {_within_found(OFFSET_AT)}))
      > struct.unpack('<i8', string.sub(header, {_within_header(OFFSET_AT)})) then
    return 2
  end
  if found == '' then
    revision = string.rep('\\0', {len(NO_REVISION)})
  end
end
if revision ~= base then
  return 1
end

local stays = ''
if kept > 0 then
  local stored = redis.call('STRLEN', key)
  if stored < kept then
    return 1  -- cut short behind our back; a reader of the whole value sees what is wrong
  end
  if stored == total then
    -- There is room: the string does not change its size, so Redis writes in place.
    if #slots > 0 then
      redis.call('SETRANGE', key, kept, slots)
    end
    redis.call('SETRANGE', key, 0, header)
    if ttl_ms > 0 then
      redis.call('PEXPIRE', key, ttl_ms)
    else
      redis.call('PERSIST', key)
    end
    return 0
  end
  stays = redis.call('GETRANGE', key, #header, kept - 1)
end
local value = header .. stays .. slots .. string.rep('\\0', total - #header - #stays - #slots)
if ttl_ms > 0 then
  redis.call('SET', key, value, 'PX', ttl_ms)
else
  redis.call('SET', key, value)
end
return 0
"""
