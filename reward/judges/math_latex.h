#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace praetor {

/// Content of the last \boxed{...} with balanced braces, else of the last \fbox{...}; escaped
/// braces are text.
std::optional<std::string_view> last_boxed(std::string_view text);

/// The form in which answers of the MATH data set are compared as texts (Hendrycks et al. 2021,
/// arXiv:2103.03874, their math_equivalence): units, spaces and size commands gone, \frac12 and 1/2
/// and 0.5 as \frac{1}{2}, ...
std::string normalise_latex(std::string_view text);

}  // namespace praetor
