-- Sorted sets. A member's value is its score as text: as Redis printed it, or with the 17 digits that say it exactly.

local function score_text(score) return format('%.17g', score) end

-- The score as it is kept: a small sorted set has no negative zero.
local function kept_score(score) return score == 0 and '0' or score_text(score) end

flushers.zset = function(e, out, deletions)
  flush_members(e, out, deletions, 'ZADD', 'ZREM', function(list, name, score)
    list[#list + 1] = score
    list[#list + 1] = name
  end)
end

ops.ZSCORE = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'zset') and member(e, 'zset', ARGV[i + 1])
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

-- The score of an argument. A hexadecimal one was not checked for its range before.
local function score_of(text)
  local score = tonumber(text)
  if not score or score ~= score then refuse('not_a_float', 'the score is not a float') end
  if (score == math.huge or score == -math.huge) and not match(text, '[nN]') then
    refuse('not_a_float', 'the score is not within a double')
  end
  return score
end

-- ARGV: key, flags of N X G L C I, score, member, …
ops.ZADD = function(i, n)
  local e, flags = entry(ARGV[i]), ARGV[i + 1]
  local nx, xx, gt, lt = match(flags, 'N'), match(flags, 'X'), match(flags, 'G'), match(flags, 'L')
  local incr = match(flags, 'I')
  local added, updated, result = 0, 0, false
  local exists = is_kind(e, 'zset')
  if xx and not exists then
    if incr then return false end
    return 0
  end
  for j = i + 2, i + n - 1, 2 do
    local score, name = score_of(ARGV[j]), ARGV[j + 1]
    -- Above, the key may not exist yet: then nothing of the keyspace may be read.
    local old = is_kind(e, 'zset') and member(e, 'zset', name)
    if old then
      local current = tonumber(old)
      if not nx then
        if incr then score = score + current end
        if score ~= score then refuse('not_a_float', 'the resulting score is not a number') end
        if not ((lt and score >= current) or (gt and score <= current)) then
          result = score_text(score)
          if score ~= current then
            begin_members(e, 'zset')
            put(e, 'zset', name, kept_score(score))
            updated = updated + 1
          else
            result = old
          end
        end
      end
    elseif not xx then
      result = score_text(score)
      begin_members(e, 'zset')
      put(e, 'zset', name, kept_score(score))
      added = added + 1
    end
  end
  if incr then return result end
  return match(flags, 'C') and added + updated or added
end

-- All members as {name, score, text}, in order.
local function sorted(e)
  bounded(count(e, 'zset'))
  if e.base then
    local base = call('ZRANGE', e.k, 0, -1, 'WITHSCORES')
    for j = 1, #base, 2 do
      if e.m[base[j]] == nil then e.m[base[j]] = base[j + 1] end
    end
  end
  local list = {}
  for name, text in pairs(e.m) do
    if text then list[#list + 1] = {name, tonumber(text), text} end
  end
  table.sort(list, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    return bytes_less(a[1], b[1])
  end)
  return list
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

local function reversed(list)
  local n = #list
  for j = 1, math.floor(n / 2) do list[j], list[n + 1 - j] = list[n + 1 - j], list[j] end
end

local function range_of_sorted(e, by, rev, offset, limit, min, max)
  local list = sorted(e)
  if by ~= 'I' then
    if rev then min, max = max, min end
    local above, below = bound(by, min, true), bound(by, max, false)
    local inside = {}
    for _, item in ipairs(list) do
      if above(item) and below(item) then inside[#inside + 1] = item end
    end
    list = inside
  end
  if rev then reversed(list) end
  local first, last
  if by == 'I' then
    first, last = index_range(min, max, #list)
  elseif offset >= 0 then
    first, last = offset + 1, #list
    if limit >= 0 then last = math.min(last, offset + limit) end
  end
  local result = {}
  for j = first or 1, last or 0 do result[#result + 1] = list[j] end
  return result
end

-- ARGV: key, I S or L, rev, withscores, offset, count, min, max
ops.ZRANGE = function(i)
  local e, reply = entry(ARGV[i]), {}
  if not is_kind(e, 'zset') then return reply end
  local by, rev, scores = ARGV[i + 1], ARGV[i + 2] ~= '', ARGV[i + 3] ~= ''
  local offset, limit = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local min, max = ARGV[i + 6], ARGV[i + 7]
  if e.base and not e.t then
    local args = {'ZRANGE', e.k, min, max}
    if by ~= 'I' then
      args[#args + 1] = by == 'S' and 'BYSCORE' or 'BYLEX'
      if limit < 0 or limit > MATERIALISED_MAX then limit = MATERIALISED_MAX + 1 end
      args[#args + 1] = 'LIMIT'
      args[#args + 1] = ARGV[i + 4]
      args[#args + 1] = limit
    else
      local first, last = index_range(min, max, count(e, 'zset'))
      bounded(first and last - first + 1 or 0)
    end
    if rev then args[#args + 1] = 'REV' end
    if scores then args[#args + 1] = 'WITHSCORES' end
    reply = call(unpack(args))
    bounded(scores and #reply / 2 or #reply)
    return reply
  end
  for _, item in ipairs(range_of_sorted(e, by, rev, offset, limit, min, max)) do
    reply[#reply + 1] = item[1]
    if scores then reply[#reply + 1] = item[3] end
  end
  return reply
end
