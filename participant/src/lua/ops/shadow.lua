-- Commands without a handler: Redis itself runs them. What only reads runs on the keys, unless the
-- branch wrote to them before. Everything else runs on copies of its keys, which this call makes
-- and removes; what a copy is in the end is what the key gets, by RESTORE.
--
-- The copies never reach the AOF or a replica (REPL_NONE). Who listens to keyspace notifications
-- hears of them.
--
--   home    of an entry whose `k` is a copy: the key itself
--   before  its content when it was copied, as DUMP has it; false if it was absent
--   bexp_home  when it expired then: ms, false for never

-- Bytes of content that are copied, or read as a whole, in one step.
local COPIED_BYTES = 64
-- What a random choice with repetitions may come to: bytes, if each were the largest.
local CHOSEN_BYTES_MAX = 67108864
-- Comparisons of LCS in a step; each takes four bytes while it runs.
local LCS_STEP = 32
-- What is compared in a step of SORT, in natural logarithms.
local SORT_STEP = 2
-- An integer that a double does not hold exactly.
local EXACT_MAX = 9007199254740992

local copies = {}

local function unlogged(...)
  redis.set_repl(redis.REPL_NONE)
  local reply = try(...)
  redis.set_repl(redis.REPL_ALL)
  return reply
end

-- What a script is told of a command that the server does not have, or that has another number of
-- words there; and how a client is told.
local function not_here(text, name)
  if match(text, 'nknown .*command') then
    return "ERR unknown command '" .. name .. "' on the participant's Redis"
  end
  if match(text, 'Wrong number of args') then
    return "ERR wrong number of arguments for '" .. string.lower(name) .. "' command"
  end
end

-- Throws what Redis says of `words`. Where it names a copy, the key itself is meant.
local function raise(reply, name, used)
  local text = reply.err
  local told = name and not_here(text, name)
  if told then refuse('command_refused', told) end
  if refusal_code(text) then error(reply) end
  for _, e in ipairs(used or {}) do
    if e.home then
      local copy = string.gsub(e.k, '%p', '%%%0') .. '%f[%D]'
      text = string.gsub(text, copy, function() return e.home end)
    end
  end
  refuse(code_of_data(text) or 'command_refused', text)
end

local function sure(...)
  local reply = unlogged(...)
  if type(reply) == 'table' and reply.err then raise(reply) end
  return reply
end

-- How many bytes the key takes, about. No more than `most` are copied, or read as a whole, or come
-- of it.
local function usage(e, most)
  if call('TYPE', e.k).ok == 'none' then return 0 end
  local bytes = try('MEMORY', 'USAGE', e.k)
  if type(bytes) ~= 'number' then
    refuse('redis_no_permission', 'MEMORY USAGE is not answered, and bounds what is read: '
      .. (type(bytes) == 'table' and bytes.err or ''))
  end
  if bytes > most then
    refuse('too_large', format('the key takes %.0f bytes in Redis; this command works on keys of '
      .. 'up to %.0f (the participant\'s setting shadow_bytes_max)', bytes, most))
  end
  return bytes
end

-- The same of a key that is about to be copied or gone through, each time anew.
local function size(e, most)
  local bytes = usage(e, most)
  spend(CALL_STEPS + bytes / COPIED_BYTES)
  return bytes
end

-- A new copy of a key; there is none of a key that is absent. Nothing is written before the first
-- one: behind a write, Redis does not ask for memory.
local function copy_of(k)
  local name = ctl .. ':shadow:' .. (#copies + 1)
  copies[#copies + 1] = name
  sure('COPY', k, name, 'REPLACE')
  return name
end

local flush_to_key = flush

-- Writes to the copy what the branch wrote since it was made.
local function settle_copy(e)
  if not e.w then return end
  local writes, deletions = {}, {}
  flush_to_key(e, writes, deletions)
  for _, write in ipairs(deletions) do writes[#writes + 1] = write end
  for _, write in ipairs(writes) do
    -- What was put down before there was a copy names the key itself.
    write[2] = e.k
    sure(unpack(write))
  end
  e.w = nil
end

-- Makes the entry one whose key is a copy, with what the branch wrote before.
local function copy(e, most)
  if not e.home then
    if e.star or e.fuzzy then
      refuse('bad_arguments',
        'the entries are not known until XADD * or MAXLEN ~ before it is applied')
    end
    size(e, most)
    local home = e.k
    e.before, e.bexp_home = call('DUMP', home), expires_at(home)
    e.home, e.k = home, copy_of(home)
  end
  settle_copy(e)
end

-- What is known of a copy does not hold any more.
local KEPT = {k = true, home = true, before = true, bexp_home = true}
local function forget(e)
  for field in pairs(e) do
    if not KEPT[field] then e[field] = nil end
  end
  e.base = true
end

flush = function(e, out, deletions)
  if not e.home then return flush_to_key(e, out, deletions) end
  settle_copy(e)
  local after, at_ms = call('DUMP', e.k), expires_at(e.k)
  if not after then
    if e.before then deletions[#deletions + 1] = {'UNLINK', e.home} end
    return
  end
  if after == e.before and at_ms == e.bexp_home then return end
  spend(#after / STEP_BYTES)
  local write = {'RESTORE', e.home, at_ms and ms_text(at_ms) or '0', after, 'REPLACE'}
  if at_ms then write[6] = 'ABSTTL' end
  out[#out + 1] = write
end

-- What Lua has for a reply, as the handlers have it. A reply that names keys names the copies;
-- `names` says of which keys they are.
local function plain(reply, names)
  if type(reply) == 'number' then
    if reply >= EXACT_MAX or reply <= -EXACT_MAX then
      refuse('overflow', 'the reply is an integer of more than 53 bits; no script can carry it')
    end
    return reply
  end
  if type(reply) ~= 'table' then return names and names[reply] or reply end
  if reply.ok then return reply.ok end
  for place = 1, #reply do reply[place] = plain(reply[place], names) end
  return reply
end

-- Those that say which key they found something at.
local NAMES_KEYS = {LMPOP = true, ZMPOP = true, XREAD = true, XREADGROUP = true}

-- Refuses what costs more than the size of the keys.
local function bound(words, bytes)
  local name = words[1]
  if match(name, 'RAND') then
    local chosen = -(tonumber(words[3]) or 0)
    if chosen * bytes > CHOSEN_BYTES_MAX then
      refuse('reply_too_large', 'so many choices of elements of this key could be too large')
    end
    if chosen > 0 then spend(chosen) end
  elseif match(name, '^SORT') then
    local count = COUNT[call('TYPE', words[2]).ok]
    local n = count and call(count, words[2]) or 0
    spend(n * math.log(n + 1) / SORT_STEP)
  elseif name == 'LCS' then
    local length = function(k) return tonumber(try('STRLEN', k)) or 0 end
    spend(length(words[2]) * length(words[3]) / LCS_STEP)
  end
end

-- ARGV: P (reads a part), W (reads the whole), C (runs on copies) or R (runs on copies that are not
-- kept); the most bytes of a key; count of keys, their places among the words from 1; the words
ops.SHADOW = function(i, n)
  local mode, most, count = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local words, first = {}, i + 3 + count
  for j = first, i + n - 1 do words[#words + 1] = ARGV[j] end
  local used, sizes_before, bytes = {}, {}, 0
  for j = i + 3, first - 1 do
    local e = entry(words[tonumber(ARGV[j])])
    if mode == 'C' or e.w then copy(e, most) end
    used[#used + 1] = e
    if mode ~= 'P' then
      sizes_before[#used] = size(e, most)
      bytes = bytes + sizes_before[#used]
    end
  end
  if mode == 'W' or mode == 'R' then
    bytes_read = bytes_read + bytes
    bound_bytes()
  end
  for j, e in ipairs(used) do
    words[tonumber(ARGV[i + 2 + j])] = mode == 'R' and not e.home and copy_of(e.k) or e.k
  end
  bound(words, bytes)
  spend(CALL_STEPS)
  local reply = unlogged(unpack(words))
  for _, e in ipairs(used) do
    if e.home then forget(e) end
  end
  if type(reply) == 'table' and reply.err then raise(reply, words[1], used) end
  if mode == 'C' then
    for j, e in ipairs(used) do
      local grown = usage(e, most) - sizes_before[j]
      if grown > 0 then spend(grown / COPIED_BYTES) end
    end
  end
  local names = NAMES_KEYS[words[1]] and {}
  for _, e in ipairs(names and used or {}) do names[e.k] = e.home end
  return plain(reply, names)
end

local end_with_copies = end_branch
end_branch = function()
  for _, name in ipairs(copies) do unlogged('UNLINK', name) end
  copies = {}
  end_with_copies()
end
