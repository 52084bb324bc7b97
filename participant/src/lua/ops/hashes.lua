-- Hashes.

flushers.hash = function(e, out, deletions)
  flush_members(e, out, deletions, 'HSET', 'HDEL', function(list, field, value)
    list[#list + 1] = field
    list[#list + 1] = value
  end)
end

local function field(e, name)
  if not is_kind(e, 'hash') then return false end
  return member(e, 'hash', name)
end

local function set_field(e, name, value)
  is_kind(e, 'hash')
  begin_members(e, 'hash')
  return put(e, 'hash', name, value)
end

ops.HGET = function(i) return field(entry(ARGV[i]), ARGV[i + 1]) end

ops.HEXISTS = function(i) return field(entry(ARGV[i]), ARGV[i + 1]) and 1 or 0 end

ops.HMGET = function(i, n)
  local e, reply = entry(ARGV[i]), {}
  for j = 1, n - 1 do reply[j] = field(e, ARGV[i + j]) end
  return reply
end

ops.HLEN = function(i)
  local e = entry(ARGV[i])
  return is_kind(e, 'hash') and count(e, 'hash') or 0
end

ops.HGETALL = function(i)
  local e, reply = entry(ARGV[i]), {}
  if not is_kind(e, 'hash') then return reply end
  bounded(count(e, 'hash'))
  local seen = {}
  if e.base then
    local base = call('HGETALL', e.k)
    if not e.t then return base end
    for j = 1, #base, 2 do
      local value = e.m[base[j]]
      if value == nil then value = base[j + 1] end
      seen[base[j]] = true
      if value then
        reply[#reply + 1] = base[j]
        reply[#reply + 1] = value
      end
    end
  end
  for _, name in ipairs(e.tl) do
    if e.m[name] and not seen[name] then
      reply[#reply + 1] = name
      reply[#reply + 1] = e.m[name]
    end
  end
  return reply
end

ops.HSET = function(i, n)
  local e, added = entry(ARGV[i]), 0
  for j = i + 1, i + n - 1, 2 do
    if set_field(e, ARGV[j], ARGV[j + 1]) then added = added + 1 end
  end
  return added
end

ops.HSETNX = function(i)
  local e = entry(ARGV[i])
  if field(e, ARGV[i + 1]) then return 0 end
  set_field(e, ARGV[i + 1], ARGV[i + 2])
  return 1
end

ops.HDEL = function(i, n)
  local e, gone = entry(ARGV[i]), 0
  for j = i + 1, i + n - 1 do
    if is_kind(e, 'hash') and remove(e, 'hash', ARGV[j]) then gone = gone + 1 end
  end
  return gone
end

ops.HINCRBY = function(i)
  local e = entry(ARGV[i])
  local sum = add_integer(field(e, ARGV[i + 1]) or '0', ARGV[i + 2])
  set_field(e, ARGV[i + 1], sum)
  return sum
end

ops.HINCRBYFLOAT = function(i)
  local e = entry(ARGV[i])
  local sum = add_float(field(e, ARGV[i + 1]) or '0', ARGV[i + 2])
  set_field(e, ARGV[i + 1], sum)
  return sum
end
