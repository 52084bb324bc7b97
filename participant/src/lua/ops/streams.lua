-- Streams. XADD * stays a delta: its id is known when it is applied, so that a branch that did it cannot read the stream's
-- entries, nor add one with an id of its own.
--
--   last    the last id, {ms, seq}
--   left    how many entries of the keyspace are left, the last ones, beside `gone`: ids that were deleted, gone_n of them;
--           trimmed: whether the oldest were trimmed
--   items   entries {id, fields} of this branch, behind the former, oldest first; from `first` on, but for those that are
--           in `dead`; live: how many they are; by_id: the same by their ids. Once the keyspace's entries had to be read, they
--           are here too, and none is left there.
--   star    it did XADD *             fuzzy  it did MAXLEN ~

local MAX = '18446744073709551615'

flushers.stream = function(e, out)
  for _, write in ipairs(e.log) do out[#out + 1] = write end
end

local function begin_stream(e)
  if not begin(e, 'stream') then return end
  e.left, e.gone, e.gone_n, e.trimmed = 0, {}, 0, false
  e.items, e.first, e.live, e.by_id = {}, 1, 0, {}
  -- Which items are deleted. Not said in the item, which may be part of a reply.
  e.dead = {}
  e.log, e.last, e.star, e.fuzzy = {}, {'0', '0'}, false, false
  if e.base then
    spend(CALL_STEPS)
    local info = call('XINFO', 'STREAM', e.k)
    for j = 1, #info, 2 do
      if info[j] == 'length' then e.left = info[j + 1] end
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

-- Steps of an entry: an array of its id and an array of its fields.
local ENTRY_STEPS = 4

local function reading_entries(e, wanted, n)
  spend(ENTRY_STEPS * bounded(wanted))
  reading_elements(e, wanted, n)
end

-- Reads the entries of the keyspace that are left. Trimming takes the oldest, so that they are the last ones there.
local function read_left(e)
  if e.left == 0 then return end
  local wanted = e.left + e.gone_n
  reading_entries(e, wanted, base_count(e, 'XLEN'))
  local base = call('XREVRANGE', e.k, '+', '-', 'COUNT', wanted)
  local items, kept = {}, 0
  for j = 1, #base do
    if kept < e.left and not e.gone[base[j][1]] then
      kept = kept + 1
      items[kept] = base[j]
    end
  end
  -- They came from the newest to the oldest.
  for j = 1, math.floor(kept / 2) do items[j], items[kept + 1 - j] = items[kept + 1 - j], items[j] end
  for j = 1, kept do e.by_id[items[j][1]] = items[j] end
  for j = e.first, #e.items do items[#items + 1] = e.items[j] end
  e.items, e.first, e.live, e.left, e.gone, e.gone_n = items, 1, e.live + kept, 0, {}, 0
end

local function drop_item(e, item)
  e.dead[item] = true
  e.by_id[item[1]] = nil
  e.live = e.live - 1
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
  local drop = e.left + e.live - maxlen
  if drop <= 0 or e.fuzzy then return end
  local of_base = math.min(drop, e.left)
  if of_base > 0 then e.left, e.trimmed = e.left - of_base, true end
  drop = drop - of_base
  while drop > 0 do
    local item = e.items[e.first]
    e.first = e.first + 1
    if not e.dead[item] then
      drop_item(e, item)
      drop = drop - 1
    end
  end
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
  local item = {id, fields}
  e.items[#e.items + 1] = item
  e.by_id[id] = item
  e.live = e.live + 1
  if ARGV[i + 5] ~= '' then trim(e, ARGV[i + 5], tonumber(ARGV[i + 6])) end
  if id ~= '*' then return id end
  e.star = true
  branch_stars[write] = reply_at
  return false
end

ops.XLEN = function(i)
  local e = entry(ARGV[i])
  if not is_kind(e, 'stream') then return 0 end
  if e.kind ~= 'stream' then return base_count(e, 'XLEN') end
  if e.fuzzy then readable_entries(e) end
  return e.left + e.live
end

-- Deletes an entry. Returns whether it was there.
local function delete_entry(e, id)
  if not e.by_id[id] and e.left > 0 and e.trimmed then read_left(e) end
  if e.by_id[id] then
    drop_item(e, e.by_id[id])
    return true
  end
  if e.left == 0 or e.gone[id] then return false end
  spend(CALL_STEPS + 2 * ENTRY_STEPS)
  if #call('XRANGE', e.k, id, id) == 0 then return false end
  e.gone[id], e.gone_n, e.left = true, e.gone_n + 1, e.left - 1
  return true
end

ops.XDEL = function(i, n)
  local e, gone = entry(ARGV[i]), 0
  if not is_kind(e, 'stream') then return 0 end
  if e.kind == 'stream' then readable_entries(e) end
  begin_stream(e)
  local write = {'XDEL', e.k}
  for j = i + 1, i + n - 1 do
    if delete_entry(e, ARGV[j]) then
      gone = gone + 1
      write[#write + 1] = ARGV[j]
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
    return in_pages(limit or -1, 1, ENTRY_STEPS / 2, function(_, count, last)
      local start = last and '(' .. last[1] or ARGV[i + 1]
      return call('XRANGE', e.k, start, ARGV[i + 2], 'COUNT', count)
    end)
  end
  readable_entries(e)
  read_left(e)
  local from_ms, from_seq = match(ARGV[i + 1], '^(%d+)-(%d+)$')
  local to_ms, to_seq = match(ARGV[i + 2], '^(%d+)-(%d+)$')
  -- The first entry that is not before the start.
  local low, high = e.first, #e.items + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local ms, seq = match(e.items[middle][1], '^(%d+)-(%d+)$')
    if id_less(ms, seq, from_ms, from_seq) then low = middle + 1 else high = middle end
  end
  for j = low, #e.items do
    local item = e.items[j]
    local ms, seq = match(item[1], '^(%d+)-(%d+)$')
    if id_less(to_ms, to_seq, ms, seq) or (limit and #reply == limit) then break end
    spend(1)
    if not e.dead[item] then reply[#reply + 1] = item end
  end
  return reply
end
