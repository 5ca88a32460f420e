#include "actors/launch/slurm_text.h"

#include "core/base/error.h"
#include "tests/support/catch.h"

namespace praetor {

using Names = std::vector<std::string>;

TEST_CASE("a time is read in every form that Slurm has for it", "[actors][cpu]") {
  const std::vector<std::pair<std::string, int64_t>> good = {{"0:00", 0},
                                                             {"90", 5400},
                                                             {"1:30", 90},
                                                             {"59:59", 3599},
                                                             {"2:03:04", 7384},
                                                             {"1-00:00:00", 86400},
                                                             {"1-12", 129600},
                                                             {"2-01:30", 178200},
                                                             {"10-23:59:59", 950399}};
  for (const auto& [text, seconds] : good) {
    CAPTURE(text);
    const auto read = parse_slurm_time(text);
    REQUIRE(read);
    CHECK(read->count() == seconds);
  }
  for (const char* text : {"",
                           "UNLIMITED",
                           "INVALID",
                           "NOT_SET",
                           "1:2:3:4",
                           "-1",
                           "1-",
                           "1:",
                           ":1",
                           "1 h",
                           "1.5",
                           "9999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_slurm_time(text));
  }
}

TEST_CASE("a host list is expanded as scontrol does it", "[actors][cpu]") {
  CHECK(expand_host_list("n1") == Names{"n1"});
  CHECK(expand_host_list("n[1-3]") == Names{"n1", "n2", "n3"});
  CHECK(expand_host_list("n[08-10,12],login") == Names{"n08", "n09", "n10", "n12", "login"});
  CHECK(expand_host_list("r[1-2]n[5,7]-ib") == Names{"r1n5-ib", "r1n7-ib", "r2n5-ib", "r2n7-ib"});
  for (const char* text :
       {"", "n[1-3", "n1]", "n[3-1]", "n[a-b]", "n[]", "a,,b", "n[1-999999999]", "]n["}) {
    CAPTURE(text);
    CHECK_THROWS_AS(expand_host_list(text), DataError);
  }
}

TEST_CASE("work goes to nodes that Slurm calls alive", "[actors][cpu]") {
  const Names nodes = {"n1", "n2", "n3", "n4", "n5"};
  CHECK(living_nodes(nodes, "n1 mix\nn2 down*\nn3 alloc\nn4 idle*\nn5 drng\n") ==
        Names{"n1", "n3", "n5"});
  CHECK(living_nodes(nodes, "n1 down\nn2 fail\nn3 unk\nn4 down~\n") == Names{"n5"});
  // A node that Slurm says nothing of is left to it.
  CHECK(living_nodes(nodes, "") == nodes);
  CHECK(living_nodes({"n1"}, "n1 down*\n") == Names{"n1"});
}

}  // namespace praetor
