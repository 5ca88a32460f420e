#include "learners/sharding/shard_state.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/sharding/flat_layout.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

NamedTensor run(const std::string& name, int64_t begin, int64_t end) {
  return {name + "@" + std::to_string(begin) + "-" + std::to_string(end),
          at::arange(begin, end).to(at::kFloat)};
}

void require(const std::vector<NamedTensor>& tensors, std::vector<int64_t> sizes = {2, 5}) {
  const auto source = make_tensor_source(tensors);
  ShardState(*source).require("w", sizes, at::kFloat);
}

}  // namespace

TEST_CASE("the flat concatenation is cut into parts of sixteens", "[learners][cpu]") {
  const std::vector<NamedTensor> parameters{
      {"a", at::zeros({3, 4})}, {"none", at::zeros({0})}, {"b", at::zeros({30})}};
  // 42 elements: at 1 rank one part of 48, at 2 of 32, at 3 and 4 of 16; the fourth is empty.
  CHECK(FlatLayout(parameters, 1).part() == 48);
  CHECK(FlatLayout(parameters, 2).part() == 32);
  CHECK(FlatLayout(parameters, 3).part() == 16);
  const FlatLayout four(parameters, 4);
  CHECK(four.part() == 16);
  CHECK(four.pieces_of(3).empty());
  const auto first = four.pieces_of(0);
  REQUIRE(first.size() == 2);
  CHECK((first[0].parameter == 0 && first[0].begin == 0 && first[0].end == 12));
  CHECK((first[1].parameter == 2 && first[1].begin == 0 && first[1].end == 4));
  CHECK(first[1].at == 12);
  const auto third = four.pieces_of(2);
  REQUIRE(third.size() == 1);
  CHECK((third[0].parameter == 2 && third[0].begin == 20 && third[0].end == 30));
}

TEST_CASE("flat ranges are copied out and back, undefined tensors as zeros", "[learners][cpu]") {
  const std::vector<NamedTensor> parameters{{"a", at::arange(6).to(at::kFloat).view({2, 3})},
                                            {"b", at::arange(6, 10).to(at::kFloat)}};
  const FlatLayout layout(parameters, 1);
  const at::Tensor buffer = at::full({8}, -1.0f);
  gather_flat(layout, {parameters[0].tensor, parameters[1].tensor}, 4, 12, buffer);
  CHECK(at::equal(buffer, at::tensor({4.f, 5.f, 6.f, 7.f, 8.f, 9.f, 0.f, 0.f})));
  buffer.add_(10);
  scatter_flat(layout, {parameters[0].tensor, parameters[1].tensor}, 4, 12, buffer);
  CHECK(at::equal(parameters[1].tensor, at::tensor({16.f, 17.f, 18.f, 19.f})));
  CHECK(at::equal(parameters[0].tensor.view(-1), at::tensor({0.f, 1.f, 2.f, 3.f, 14.f, 15.f})));
  gather_flat(layout, {{}, parameters[1].tensor}, 5, 7, buffer);
  CHECK(buffer[0].item<float>() == 0);
  CHECK(buffer[1].item<float>() == 16);
}

TEST_CASE("a piece's name says its range", "[learners][cpu]") {
  CHECK(piece_name("w", 0, 10, 10) == "w");
  CHECK(piece_name("w", 3, 10, 10) == "w@3-10");
  CHECK(split_piece_name("a/w@3-10").parameter == "a/w");
  CHECK(split_piece_name("a/w@3-10").range == std::pair<int64_t, int64_t>(3, 10));
  for (const char* name : {"w", "w@", "w@3", "w@3-", "w@-3", "w@5-5", "w@a-b", "w@1-2x", "w-1@x"}) {
    CHECK_FALSE(split_piece_name(name).range);
    CHECK(split_piece_name(name).parameter == name);
  }
}

TEST_CASE("pieces make a tensor whole, in any order and cut", "[learners][cpu]") {
  const auto pieces =
      make_tensor_source(std::vector<NamedTensor>{run("w", 7, 10), run("w", 0, 3), run("w", 3, 7)});
  ShardState state(*pieces);
  CHECK(state.names() == std::vector<std::string>{"w"});
  state.require("w", {2, 5}, at::kFloat);
  state.require_no_more();
  const at::Tensor out = at::zeros({6});
  state.copy("w", 2, 8, out);
  CHECK(at::equal(out, at::arange(2, 8).to(at::kFloat)));
  const auto one = make_tensor_source(
      std::vector<NamedTensor>{{"w", at::arange(10).to(at::kFloat).view({2, 5})}});
  ShardState whole(*one);
  whole.require("w", {2, 5}, at::kFloat);
  whole.copy("w", 2, 8, out.zero_());
  CHECK(at::equal(out, at::arange(2, 8).to(at::kFloat)));
}

TEST_CASE("what does not make a tensor whole is named", "[learners][cpu]") {
  CHECK_THROWS_WITH(require({}), Catch::Contains("w is missing"));
  CHECK_THROWS_WITH(require({run("w", 0, 3), run("w", 5, 10)}),
                    Catch::Contains("elements 3 to 5 of w are missing"));
  CHECK_THROWS_WITH(require({run("w", 0, 3)}), Catch::Contains("elements 3 to 10 of w"));
  CHECK_THROWS_WITH(require({run("w", 2, 10)}), Catch::Contains("elements 0 to 2 of w"));
  CHECK_THROWS_WITH(require({run("w", 0, 6), run("w", 5, 10)}),
                    Catch::Contains("elements 5 to 6 of w are there twice, in w@0-6 and w@5-10"));
  CHECK_THROWS_WITH(require({{"w", at::zeros({2, 5})}, run("w", 0, 5)}),
                    Catch::Contains("there twice"));
  CHECK_THROWS_WITH(require({run("w", 0, 12)}), Catch::Contains("beyond the 10 elements"));
  CHECK_THROWS_WITH(require({{"w@0-10", at::zeros({9})}}), Catch::Contains("[9]"));
  CHECK_THROWS_WITH(require({{"w@0-10", at::zeros({2, 5})}}), Catch::Contains("[2, 5]"));
  CHECK_THROWS_WITH(require({{"w", at::zeros({10})}}), Catch::Contains("wanted Float[2, 5]"));
  CHECK_THROWS_WITH(require({{"w", at::zeros({2, 5}, at::kDouble)}}), Catch::Contains("Double"));
  CHECK_THROWS_WITH(require({run("w", 0, 3), run("w", 0, 3)}), Catch::Contains("twice"));
  const auto source = make_tensor_source(std::vector<NamedTensor>{run("w", 0, 10), run("v", 0, 3)});
  ShardState more(*source);
  CHECK_THROWS_AS(more.first_form("x"), CheckpointError);
  more.require("w", {10}, at::kFloat);
  CHECK_THROWS_WITH(more.require_no_more(), Catch::Contains("v@0-3 is not part"));
}

TEST_CASE("columns make a matrix whole, whatever ranges of them are wanted", "[learners][cpu]") {
  const at::Tensor whole = at::arange(15, at::kFloat).view({3, 5});
  const at::Tensor right = whole.slice(1, 2, 5).contiguous().view(-1);
  const std::vector<NamedTensor> parts{{"w@c2-5@4-9", right.slice(0, 4, 9)},
                                       {"w@c0-2", whole.slice(1, 0, 2).contiguous()},
                                       {"w@c2-5@0-4", right.slice(0, 0, 4)}};
  const auto source = make_tensor_source(parts);
  ShardState state(*source);
  state.require("w", {3, 5}, at::kFloat);
  state.require_no_more();
  CHECK(state.names() == std::vector<std::string>{"w"});
  at::Tensor all = at::zeros({3, 5});
  state.copy("w", 0, 15, all);
  CHECK(at::equal(all, whole));
  at::Tensor some = at::zeros({7});
  state.copy("w", 4, 11, some);
  CHECK(at::equal(some, whole.view(-1).slice(0, 4, 11)));
  // Elements 2 to 8 of columns 1 to 4: the last of row 0, row 1, the first two of row 2.
  at::Tensor middle = at::zeros({6});
  state.copy("w", {.begin = 2, .end = 8, .columns = std::pair<int64_t, int64_t>(1, 4)}, middle);
  CHECK(at::equal(middle, at::tensor({3.0f, 6.0f, 7.0f, 8.0f, 11.0f, 12.0f})));

  const auto error = [](const std::vector<NamedTensor>& tensors) -> std::string {
    const auto given = make_tensor_source(tensors);
    try {
      ShardState(*given).require("w", {3, 5}, at::kFloat);
    } catch (const CheckpointError& failure) {
      return failure.what();
    }
    return "";
  };
  CHECK_THAT(error({parts[1]}), Catch::Contains("columns from 2 on of w are missing"));
  CHECK_THAT(error({parts[0], parts[1]}), Catch::Contains("elements 0 to 4 of w@c2-5 are missing"));
  CHECK_THAT(error({parts[1], {"w", whole}}), Catch::Contains("columns of w are there twice"));
  CHECK_THAT(error({parts[1], {"w@c1-5", at::zeros({3, 4})}}), Catch::Contains("there twice"));
  CHECK_THAT(error({parts[1], {"w@c2-6", at::zeros({3, 4})}}),
             Catch::Contains("reaches beyond the 5 columns"));
  CHECK_THAT(error({parts[1], {"w@c2-5", at::zeros({9})}}), Catch::Contains("wanted"));
}

}  // namespace praetor
