#pragma once

namespace praetor {

/// The Python program that runs one test of one solution inside the sandbox. Its stdin is 8 bytes of
/// length (big endian), a request of that length, and what follows is for the request's kind:
///   {"kind": "check", "code", "test", "limits": {...}}  32 bytes, which the answer must repeat: they
///       are read when the test is through, so that a solution that ends the program, or prints what
///       it likes, answers nothing. One line of JSON is the answer.
///   {"kind": "run", "code", "limits"}                   the solution's own stdin; its stdout is the
///       answer.
inline constexpr const char* kCodeHarness = R"python(
import json, os, resource, sys, types

def read(size, _read=os.read):
    out = b""
    while len(out) < size:
        more = _read(source, size - len(out))
        if not more:
            break
        out += more
    return out

def limit(limits):
    for name, value in (("AS", limits["memory"]), ("FSIZE", limits["scratch"]),
                        ("NPROC", limits["processes"]), ("NOFILE", 256), ("CORE", 0)):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu"], limits["cpu"] + 1))

source = 0
request = json.loads(read(int.from_bytes(read(8), "big")))
limit(request["limits"])
sys.argv = ["solution.py"]
if request["kind"] == "run":
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(request["code"], "solution.py", "exec"), main.__dict__)
    sys.exit(0)

def check(dumps=json.dumps, write=os.write, leave=os._exit, read=read, type=type, str=str):
    global source
    answer, source = os.dup(1), os.dup(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    found, where = {"end": "pass"}, "solution"
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(request["code"], "solution.py", "exec"), module.__dict__)
        where = "test"
        exec(compile(request["test"], "test.py", "exec"), module.__dict__)
    except MemoryError:
        found = {"end": "memory"}
    except BaseException as failure:
        end = "fail" if type(failure) is AssertionError and where == "test" else "error"
        try:
            said = str(failure)[:200]
        except BaseException:
            said = ""
        found = {"end": end, "what": type(failure).__name__, "said": said, "where": where}
    found["secret"] = read(32).decode()
    write(answer, dumps(found).encode() + b"\n")
    leave(0)

check()
)python";

}  // namespace praetor
