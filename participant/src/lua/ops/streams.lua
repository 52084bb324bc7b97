-- Streams. XADD * stays a delta: its id is known when it is applied, so that a branch that did it cannot read the stream's
-- entries, nor add one with an id of its own.
--
--   last    the last id, {ms, seq}    n      entries now
--   added   entries {id, fields} of this branch    gone   ids of the keyspace that it deleted
--   star    it did XADD *             fuzzy  it did MAXLEN ~         trimmed  it trimmed the keyspace's entries

local MAX = '18446744073709551615'

flushers.stream = function(e, out)
  for _, write in ipairs(e.log) do out[#out + 1] = write end
end

local function begin_stream(e)
  if not begin(e, 'stream') then return end
  e.added, e.gone, e.gone_n, e.log, e.n = {}, {}, 0, {}, 0
  e.last, e.star, e.fuzzy, e.trimmed = {'0', '0'}, false, false, false
  if e.base then
    local info = call('XINFO', 'STREAM', e.k)
    for j = 1, #info, 2 do
      if info[j] == 'length' then e.n = info[j + 1] end
      if info[j] == 'last-generated-id' then e.last = {match(info[j + 1], '^(%d+)-(%d+)$')} end
    end
  end
end

local function id_less(a_ms, a_seq, b_ms, b_seq)
  return less(a_ms, b_ms) or (a_ms == b_ms and less(a_seq, b_seq))
end

-- A number of at most 64 bits, plus one. There is no carry out of the largest: it is asked for before.
local function successor(digits)
  if #digits < 16 then return format('%.0f', tonumber(digits) + 1) end
  local head, nines = match(digits, '^(.-)(9*)$')
  if head == '' then return '1' .. string.rep('0', #nines) end
  return sub(head, 1, -2) .. (tonumber(sub(head, -1)) + 1) .. string.rep('0', #nines)
end

local function readable_entries(e)
  if e.star or e.fuzzy then
    refuse('bad_arguments', 'the entries are not known until XADD * or MAXLEN ~ before it is applied')
  end
end

-- All entries of a stream that the branch changed, oldest first. Trimming takes the oldest, so that those of the
-- keyspace that remain are its last ones.
local function entries(e)
  local result, wanted = {}, bounded(e.n) - #e.added
  if wanted > 0 then
    local base = call('XREVRANGE', e.k, '+', '-', 'COUNT', bounded(wanted + e.gone_n))
    for j = 1, #base do
      if wanted > 0 and not e.gone[base[j][1]] then
        table.insert(result, 1, base[j])
        wanted = wanted - 1
      end
    end
  end
  for _, item in ipairs(e.added) do result[#result + 1] = item end
  return result
end

-- The id of an entry to add: ms, seq, and the text for the write.
local function new_id(e, kind, ms, seq)
  if e.last[1] == MAX and e.last[2] == MAX then
    refuse('stream_id_too_small', 'the stream has exhausted the last possible id')
  end
  if kind == '*' then
    -- Behind an id of the future, Redis counts up from it; at the very end of the ids that matters.
    if less(format('%.0f', now()), e.last[1]) then
      if e.last[2] == MAX then
        e.last = {successor(e.last[1]), '0'}
      else
        e.last = {e.last[1], successor(e.last[2])}
      end
    end
    return '*'
  end
  if e.star then
    refuse('bad_arguments', 'an id of one\'s own cannot follow XADD * in the same branch')
  end
  if kind == 'P' then
    seq = '0'
    if ms == e.last[1] then
      if e.last[2] == MAX then refuse('stream_id_too_small', 'the sequence is exhausted') end
      seq = successor(e.last[2])
    end
  end
  if not id_less(e.last[1], e.last[2], ms, seq) then
    refuse('stream_id_too_small', 'the id is equal to or smaller than the last one')
  end
  e.last = {ms, seq}
  return ms .. '-' .. seq
end

local function trim(e, kind, maxlen)
  if kind == '~' then
    e.fuzzy = true
    return
  end
  local drop = e.n - maxlen
  if drop <= 0 or e.fuzzy then return end
  e.n, e.trimmed = maxlen, true
  -- What is dropped beyond the keyspace's entries comes off the branch's own.
  while #e.added > e.n do table.remove(e.added, 1) end
end

-- ARGV: key, kind of id (* P E), ms, seq, nomkstream, trim (= ~ or empty), maxlen, field, value, …
ops.XADD = function(i, n)
  local e = entry(ARGV[i])
  if not is_kind(e, 'stream') and ARGV[i + 4] ~= '' then return false end
  begin_stream(e)
  local id = new_id(e, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  local write = {'XADD', e.k}
  if ARGV[i + 5] ~= '' then
    write[3], write[4], write[5] = 'MAXLEN', ARGV[i + 5], ARGV[i + 6]
  end
  write[#write + 1] = id
  local fields = {}
  for j = i + 7, i + n - 1 do
    fields[#fields + 1] = ARGV[j]
    write[#write + 1] = ARGV[j]
  end
  e.log[#e.log + 1] = write
  e.added[#e.added + 1] = {id, fields}
  e.n = e.n + 1
  if ARGV[i + 5] ~= '' then trim(e, ARGV[i + 5], tonumber(ARGV[i + 6])) end
  if id ~= '*' then return id end
  e.star = true
  branch_stars[write] = reply_at
  return false
end

ops.XLEN = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'stream') then return 0 end
  if e.kind ~= 'stream' then return call('XLEN', e.k) end
  if e.fuzzy then readable_entries(e) end
  return e.n
end

local function exists(e, id)
  if e.trimmed then
    for _, item in ipairs(entries(e)) do
      if item[1] == id then return true end
    end
    return false
  end
  if not e.base or e.gone[id] then return false end
  return #call('XRANGE', e.k, id, id) > 0
end

ops.XDEL = function(i, n)
  local e, gone = entry(ARGV[i]), 0
  if not is_kind(e, 'stream') then return 0 end
  if e.kind == 'stream' then readable_entries(e) end
  begin_stream(e)
  local write = {'XDEL', e.k}
  for j = i + 1, i + n - 1 do
    local id, own = ARGV[j], nil
    for place, item in ipairs(e.added) do
      if item[1] == id then own = place end
    end
    if own or exists(e, id) then
      if own then
        table.remove(e.added, own)
      else
        e.gone[id] = true
        e.gone_n = e.gone_n + 1
      end
      e.n, gone = e.n - 1, gone + 1
      write[#write + 1] = id
    end
  end
  if gone > 0 then e.log[#e.log + 1] = write end
  return gone
end

-- ARGV: key, start, end (both complete and inclusive), count or empty
ops.XRANGE = function(i)
  local e, reply = entry(ARGV[i]), {}
  if not is_kind(e, 'stream') then return reply end
  local limit = tonumber(ARGV[i + 3])
  if limit == 0 then return false end
  if e.kind ~= 'stream' then
    if not limit or limit > MATERIALISED_MAX then limit = MATERIALISED_MAX + 1 end
    reply = call('XRANGE', e.k, ARGV[i + 1], ARGV[i + 2], 'COUNT', limit)
    bounded(#reply)
    return reply
  end
  readable_entries(e)
  local from_ms, from_seq = match(ARGV[i + 1], '^(%d+)-(%d+)$')
  local to_ms, to_seq = match(ARGV[i + 2], '^(%d+)-(%d+)$')
  for _, item in ipairs(entries(e)) do
    local ms, seq = match(item[1], '^(%d+)-(%d+)$')
    local inside = not id_less(ms, seq, from_ms, from_seq) and not id_less(to_ms, to_seq, ms, seq)
    if inside and (not limit or #reply < limit) then reply[#reply + 1] = item end
  end
  return reply
end
