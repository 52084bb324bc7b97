-- Escrow: ops that add to a counter which others add to at the same time. `common::participant` (escrow.rs) is the rule; this
-- is the same in decimal strings.
--
-- A claim:  key, lock    the key, and what its lock holds
--           first        its first op, from 1
--           field        the field of a hash; tag: its name in the lock, in hexadecimal, empty for the number in a string
--           delta        what the branch adds
--           need_low, need_high   what the counter must be without the branch
--           floor, ceiling        what the value must keep within by every outcome of all who hold the counter
local ranges

-- Wait-die: only the older waits, so that no cycle can form. Its own earlier attempt is on its way out.
local function wait_or_die(id, holder, holder_id, key)
  return {id <= holder_id and 'w' or 'l', holder_id, holder, key}
end

-- Reads the claims at the cursor, and leaves it behind them.
local function claims(b)
  local read = {}
  local count = tonumber(ARGV[at])
  at = at + 1
  for place = 1, count do
    local i = tonumber(ARGV[at])
    read[place] = {
      key = KEYS[b.first_key + i], hash = sub(b.modes, i, i) == 'F', lock = b.fields[3 + i],
      first = tonumber(ARGV[at + 1]), field = ARGV[at + 2], tag = ARGV[at + 3], delta = ARGV[at + 4],
      need_low = ARGV[at + 5], need_high = ARGV[at + 6], floor = ARGV[at + 7], ceiling = ARGV[at + 8],
    }
    at = at + 9
  end
  return read
end

-- The value of a counter in the keyspace.
local function committed(c)
  local value
  if c.hash then value = try('HGET', c.key, c.field) else value = try('GET', c.key) end
  if type(value) == 'table' then
    if not match(value.err, '^WRONGTYPE') then error(value) end
    wrong_type()
  end
  if value and not is_int64(value) then
    refuse('not_an_integer', 'the value is not an integer of 64 bits')
  end
  if call('PTTL', c.key) >= 0 then
    refuse('key_expires', 'the key expires, and with it would what is reserved')
  end
  if c.hash and value and field_expires_at(c.key, c.field) then
    refuse('key_expires', 'the field expires, and with it would what is reserved')
  end
  return value or '0'
end

-- Whether a claim has room among the others: nil if it has, with the range of the counter in `ranges`; else the answer.
local function judge(b, place)
  local c = b.claims[place]
  reply_at = c.first
  local value = committed(c)
  local low, high = value, value
  local others = {}
  for holder, id, items in string.gmatch(sub(c.lock or '', 3), '([^; ]+) ([^; ]+) ([^;]+)') do
    for tag, delta, floor, ceiling in string.gmatch(items, '(%x*):([^:,]+):([^:,]+):([^:,]+)') do
      if tag == c.tag then
        if sub(delta, 1, 1) == '-' then low = sum_of(low, delta) else high = sum_of(high, delta) end
        others[#others + 1] = {holder, id, delta, floor, ceiling}
      end
    end
  end
  ranges[place] = {low, high}
  if int_less(high, c.need_low) or int_less(c.need_high, low) then return {'b', place - 1, low, high} end
  local short = int_less(low, c.need_low) or int_less(c.need_high, high)
  local takes = sub(c.delta, 1, 1) == '-'
  local gives = not takes and c.delta ~= '0'
  local least, most = takes and sum_of(low, c.delta) or low, gives and sum_of(high, c.delta) or high
  local answer
  for _, other in ipairs(others) do
    local blocks = short and other[3] ~= '0'
      or takes and int_less(least, other[4])
      or gives and int_less(other[5], most)
    if blocks then
      local met = wait_or_die(b.id, other[1], other[2], c.key)
      if met[1] == 'l' then return met end
      answer = answer or met
    end
  end
  return answer
end

local function judge_all(b)
  local waits
  ranges = {}
  for place = 1, #b.claims do
    local answer = judge(b, place)
    if answer and answer[1] ~= 'w' then return answer end
    waits = waits or answer
  end
  return waits
end

-- What a lock keeps of the claims on its key.
local function reserved_of(all, key)
  local items = {}
  for _, c in ipairs(all) do
    if c.key == key then
      items[#items + 1] = c.tag .. ':' .. c.delta .. ':' .. c.floor .. ':' .. c.ceiling
    end
  end
  return table.concat(items, ',')
end

-- The write of a claim: others change the value until it is applied, so that it is the delta.
local function delta_of(c)
  if c.hash then return {'HINCRBY', c.key, c.field, c.delta} end
  return {'INCRBY', c.key, c.delta}
end

ops.ESCROW = function(i)
  local range, added = ranges[tonumber(ARGV[i + 1])], ARGV[i + 2]
  return {sum_of(range[1], added), sum_of(range[2], added)}
end
