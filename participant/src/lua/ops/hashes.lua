-- Hashes.

flushers.hash = function(e, out, deletions)
  flush_members(e, out, deletions, 'HSET', 'HDEL', function(list, field, value)
    list[#list + 1] = field
    list[#list + 1] = value
  end)
  -- An HSET ends a field's expiry. It is said again; one that has passed by the time of the commit deletes the field.
  for _, name in ipairs(e.tl) do
    local at_ms = e.m[name] and e.fx and e.fx[name]
    if at_ms then out[#out + 1] = {'HPEXPIREAT', e.k, ms_text(at_ms), 'FIELDS', '1', name} end
  end
end

local function field(e, name)
  if not is_kind(e, 'hash') then return false end
  return member(e, 'hash', name)
end

-- Writes a field; `at_ms` is when it expires, false for never.
local function set_field(e, name, value, at_ms)
  is_kind(e, 'hash')
  begin_members(e, 'hash')
  e.fx = e.fx or {}
  e.fx[name] = at_ms
  return put(e, 'hash', name, value)
end

-- Replaces the value of a field as the increments do: it expires when it did.
local function change_field(e, name, old, value)
  local at_ms = old and e.fx and e.fx[name]
  if at_ms == nil then at_ms = old and field_expires_at(e.k, name) end
  set_field(e, name, value, at_ms)
end

ops.HGET = function(i) return field(entry(ARGV[i]), ARGV[i + 1]) end

local function has_field(e, name) return is_kind(e, 'hash') and has(e, 'hash', name) end

ops.HEXISTS = function(i) return has_field(entry(ARGV[i]), ARGV[i + 1]) and 1 or 0 end

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
    local base = all_members(e, 'HGETALL', base_count(e, 'HLEN'))
    if not e.t then return base end
    spend(#base)
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
  spend(#e.tl)
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
    if set_field(e, ARGV[j], ARGV[j + 1], false) then added = added + 1 end
  end
  return added
end

ops.HMSET = function(i, n)
  ops.HSET(i, n)
  return 'OK'
end

ops.HSETNX = function(i)
  local e = entry(ARGV[i])
  if has_field(e, ARGV[i + 1]) then return 0 end
  set_field(e, ARGV[i + 1], ARGV[i + 2], false)
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
  local old = field(e, ARGV[i + 1])
  local sum = add_integer(old or '0', ARGV[i + 2])
  change_field(e, ARGV[i + 1], old, sum)
  return sum
end

ops.HINCRBYFLOAT = function(i)
  local e = entry(ARGV[i])
  local old = field(e, ARGV[i + 1])
  local sum = add_float(old or '0', ARGV[i + 2])
  change_field(e, ARGV[i + 1], old, sum)
  return sum
end
