-- Sorted sets. A member's value is its score as text: as Redis printed it, or, where the branch wrote it, with the 17 digits
-- that say it exactly.
--
--   items  the members in the keyspace, in order, once they were read: {name, score, text}
--   view   the members as the branch sees them, in order, until it writes again

local function score_text(score) return format('%.17g', score) end

local SPELLS_SHORT = REDIS_VERSION >= 0x070200
local spelt = {}

-- A score as the server prints it: up to Redis 7.0 with 17 digits, later with the fewest that say it, by an algorithm of its
-- own. The scratch key never leaves this script and is kept from the AOF and from replicas.
local function spell(text)
  if not SPELLS_SHORT or match(text, 'inf') or (#text < 16 and match(text, '^%-?%d+$')) then
    return text
  end
  if not spelt[text] then
    spend(3 * CALL_STEPS)
    local scratch = ctl .. ':x'
    redis.set_repl(redis.REPL_NONE)
    local result = try('ZADD', scratch, text, '')
    if type(result) ~= 'table' then result = try('ZSCORE', scratch, '') end
    try('DEL', scratch)
    redis.set_repl(redis.REPL_ALL)
    if type(result) == 'table' then error(result) end
    spelt[text] = result
  end
  return spelt[text]
end

-- The score as it is kept: a small sorted set has no negative zero.
local function kept_score(score) return score == 0 and '0' or score_text(score) end

flushers.zset = function(e, out, deletions)
  flush_members(e, out, deletions, 'ZADD', 'ZREM', function(list, name, score)
    list[#list + 1] = score
    list[#list + 1] = name
  end)
end

ops.ZSCORE = function(i)
  local e, name = entry(ARGV[i]), ARGV[i + 1]
  local text = is_kind(e, 'zset') and member(e, 'zset', name)
  return text and e.t and e.t[name] and spell(text) or text
end

ops.ZCARD = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'zset') and count(e, 'zset') or 0
end

ops.ZREM = function(i, n)
  local e, gone = entry(ARGV[i]), 0
  for j = i + 1, i + n - 1 do
    if is_kind(e, 'zset') and remove(e, 'zset', ARGV[j]) then gone = gone + 1 end
  end
  return gone
end

-- ARGV: key, flags of N X G L C I, score, member, …
ops.ZADD = function(i, n)
  local e, flags = entry(ARGV[i]), ARGV[i + 1]
  local nx, xx, gt, lt = match(flags, 'N'), match(flags, 'X'), match(flags, 'G'), match(flags, 'L')
  local incr = match(flags, 'I')
  local added, updated, result = 0, 0, nil
  local exists = is_kind(e, 'zset')
  if xx and not exists then
    if incr then return false end
    return 0
  end
  for j = i + 2, i + n - 1, 2 do
    local score, name = tonumber(ARGV[j]), ARGV[j + 1]
    -- Above, the key may not exist yet: then nothing of the keyspace may be read.
    local old = is_kind(e, 'zset') and member(e, 'zset', name)
    if old then
      local current = tonumber(old)
      if not nx then
        if incr then score = score + current end
        if score ~= score then refuse('not_a_float', 'the score is not a number (NaN)') end
        if not ((lt and score >= current) or (gt and score <= current)) then
          if score ~= current then
            begin_members(e, 'zset')
            put(e, 'zset', name, kept_score(score))
            updated = updated + 1
          end
          result = score
        end
      end
    elseif not xx then
      result = score
      begin_members(e, 'zset')
      put(e, 'zset', name, kept_score(score))
      added = added + 1
    end
  end
  if incr then return result and spell(score_text(result)) or false end
  return match(flags, 'C') and added + updated or added
end

-- The order of sorted sets.
local function before(a, b)
  if a[2] ~= b[2] then return a[2] < b[2] end
  return bytes_less(a[1], b[1])
end

-- The members in the keyspace.
local function items_of(e)
  if not e.items then
    local n, items = base_count(e, 'ZCARD'), {}
    reading_elements(e, n, n)
    spend(2 * n)
    local all = call('ZRANGE', e.k, 0, -1, 'WITHSCORES')
    for j = 1, #all, 2 do items[#items + 1] = {all[j], tonumber(all[j + 1]), all[j + 1]} end
    e.items = items
  end
  return e.items
end

-- All members as the branch sees them: those that it wrote, merged into those in the keyspace.
local function sorted(e)
  if e.view then return e.view end
  bounded(count(e, 'zset'))
  local items, written = e.base and items_of(e) or {}, {}
  spend(#items / 2 + 8 * #e.tl)
  for _, name in ipairs(e.tl) do
    local text = e.m[name]
    if text then written[#written + 1] = {name, tonumber(text), text, true} end
  end
  table.sort(written, before)
  local view, next = {}, 1
  for _, item in ipairs(items) do
    if not e.t[item[1]] then
      while written[next] and before(written[next], item) do
        view[#view + 1] = written[next]
        next = next + 1
      end
      view[#view + 1] = item
    end
  end
  for j = next, #written do view[#view + 1] = written[j] end
  e.view = view
  return view
end

-- A predicate for one bound of BYSCORE or BYLEX; `is_min` says which one.
local function bound(by, text, is_min)
  local exclusive = sub(text, 1, 1) == '('
  if by == 'S' then
    local limit = tonumber(exclusive and sub(text, 2) or text)
    return function(item)
      local score = item[2]
      if score == limit then return not exclusive end
      return (score > limit) == is_min
    end
  end
  if text == '-' or text == '+' then
    return function() return (text == '-') == is_min end
  end
  local limit = sub(text, 2)
  return function(item)
    if item[1] == limit then return not exclusive end
    return bytes_less(limit, item[1]) == is_min
  end
end

-- First and last place, from 1, of a range by index; nil if it is empty.
local function index_range(first, last, n)
  first, last = tonumber(first), tonumber(last)
  if first < 0 then first = math.max(first + n, 0) end
  if last < 0 then last = last + n end
  if first > last or first >= n then return nil end
  return first + 1, math.min(last, n - 1) + 1
end

-- The first place of a list for which this holds: it holds for all behind it.
local function first_place(list, holds)
  local from, to = 1, #list + 1
  while from < to do
    local middle = math.floor((from + to) / 2)
    if holds(list[middle]) then to = middle else from = middle + 1 end
  end
  return from
end

local function range_of_sorted(e, by, rev, offset, limit, min, max)
  local list = sorted(e)
  -- The places of the range in the list, then those of the result in the range, in its direction.
  local low, high, first, last = 1, #list, nil, nil
  if by == 'I' then
    first, last = index_range(min, max, #list)
  else
    if rev then min, max = max, min end
    local above, below = bound(by, min, true), bound(by, max, false)
    low = first_place(list, above)
    high = first_place(list, function(item) return not below(item) end) - 1
    if offset >= 0 then first, last = offset + 1, high - low + 1 end
    if first and limit >= 0 then last = math.min(last, offset + limit) end
  end
  local result = {}
  if not first or first > last then return result end
  spend(last - first + 1)
  for j = first, last do result[#result + 1] = list[rev and high + 1 - j or low + j - 1] end
  return result
end

-- A range of a sorted set that the branch did not write to.
local function range_of_base(e, by, rev, scores, offset, limit, min, max)
  local n, options = count(e, 'zset'), {}
  if rev then options[#options + 1] = 'REV' end
  if scores then options[#options + 1] = 'WITHSCORES' end
  local width = scores and 2 or 1
  if by == 'I' then
    local first, last = index_range(min, max, n)
    if not first then return {} end
    spend((width - 1) * (last - first))
    reading_elements(e, last - first + 1, n)
    return call('ZRANGE', e.k, min, max, unpack(options))
  end
  if offset < 0 then return {} end
  -- What comes before the offset is passed over one by one.
  spend(math.min(offset, n) / 8)
  return in_pages(limit, width, 1, function(read, count_of_page)
    local from = format('%.0f', math.min(offset + read, 2 * n))
    return call('ZRANGE', e.k, min, max, by == 'S' and 'BYSCORE' or 'BYLEX', 'LIMIT', from, count_of_page, unpack(options))
  end)
end

-- ARGV: key, I S or L, rev, withscores, offset, count, min, max
ops.ZRANGE = function(i)
  local e, reply = entry(ARGV[i]), {}
  if not is_kind(e, 'zset') then return reply end
  local by, rev, scores = ARGV[i + 1], ARGV[i + 2] ~= '', ARGV[i + 3] ~= ''
  local offset, limit = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local min, max = ARGV[i + 6], ARGV[i + 7]
  if e.base and not e.t then return range_of_base(e, by, rev, scores, offset, limit, min, max) end
  for _, item in ipairs(range_of_sorted(e, by, rev, offset, limit, min, max)) do
    reply[#reply + 1] = item[1]
    if scores then reply[#reply + 1] = item[4] and spell(item[3]) or item[3] end
  end
  return reply
end
