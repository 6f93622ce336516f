// The activations and their derivatives as PyTorch defines them, at the kinks and for NaN too.
// Written once over T: a vector register on the CPU, a float or double in a CUDA kernel. Math<T>,
// in cpu/vector.h or scalar_math.h, has the elementary functions.
#pragma once

#include "batch_norm_act_kernels.h"

namespace cnngraph {
namespace CNNGRAPH_CAPABILITY {

template <class T>
struct Math;

template <class T>
CNNGRAPH_ELEMENTWISE T sigmoid(T z) {
  return Math<T>::set(1) / (Math<T>::set(1) + Math<T>::exp(-z));
}

struct Identity {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z;
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T, T dy) const {
    return dy;
  }
};

struct ReLU {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    const T zero = Math<T>::set(0);
    return z <= zero ? zero : z;
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T zero = Math<T>::set(0);
    return z <= zero ? zero : dy;
  }
};

// ReLU6 is hardtanh between 0 and 6.
struct Hardtanh {
  double minimum, maximum;

  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    const T low = Math<T>::set(minimum), high = Math<T>::set(maximum);
    const T above = z < low ? low : z;
    return above > high ? high : above;
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T zero = Math<T>::set(0);
    const T below_maximum = z >= Math<T>::set(maximum) ? zero : dy;
    return z <= Math<T>::set(minimum) ? zero : below_maximum;
  }
};

struct LeakyReLU {
  double negative_slope;

  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z > Math<T>::set(0) ? z : z * Math<T>::set(negative_slope);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    return z > Math<T>::set(0) ? dy : dy * Math<T>::set(negative_slope);
  }
};

struct ELU {
  double alpha;

  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    const T zero = Math<T>::set(0);
    const T negative = Math<T>::set(alpha) * Math<T>::expm1(z > zero ? zero : z);
    return z > zero ? z : negative;
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T zero = Math<T>::set(0);
    const T negative = dy * Math<T>::set(alpha) * Math<T>::exp(z > zero ? zero : z);
    return z <= zero ? negative : dy;
  }
};

struct SiLU {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z / (Math<T>::set(1) + Math<T>::exp(-z));
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T s = sigmoid(z);
    return dy * s * (Math<T>::set(1) + z * (Math<T>::set(1) - s));
  }
};

struct GELU {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z * cumulative(z);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T density =
        Math<T>::set(0.39894228040143267794) * Math<T>::exp(z * z * Math<T>::set(-0.5));
    return dy * (cumulative(z) + z * density);
  }

 private:
  template <class T>
  static CNNGRAPH_ELEMENTWISE T cumulative(T z) {
    const T half = Math<T>::set(0.5);
    return half + half * Math<T>::erf(z * Math<T>::set(0.70710678118654752440));
  }
};

struct TanhGELU {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    const T half = Math<T>::set(0.5);
    return half * z * (Math<T>::set(1) + tanh_of_inner(z));
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T one = Math<T>::set(1), half = Math<T>::set(0.5);
    const T t = tanh_of_inner(z);
    const T slope = Math<T>::set(scale) * (one + Math<T>::set(3 * cubic) * z * z);
    return dy * half * (one + t + z * (one - t * t) * slope);
  }

 private:
  static constexpr double scale = 0.79788456080286535588;  // sqrt(2 / pi)
  static constexpr double cubic = 0.044715;

  template <class T>
  static CNNGRAPH_ELEMENTWISE T tanh_of_inner(T z) {
    return Math<T>::tanh(Math<T>::set(scale) * (z + Math<T>::set(cubic) * z * z * z));
  }
};

struct Sigmoid {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return sigmoid(z);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T s = sigmoid(z);
    return dy * s * (Math<T>::set(1) - s);
  }
};

struct Tanh {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return Math<T>::tanh(z);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T t = Math<T>::tanh(z);
    return dy * (Math<T>::set(1) - t * t);
  }
};

struct Hardsigmoid {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return Hardtanh{0, 6}.forward(z + Math<T>::set(3)) * Math<T>::set(1.0 / 6);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T zero = Math<T>::set(0);
    const T inside = z < Math<T>::set(3) ? dy * Math<T>::set(1.0 / 6) : zero;
    return z > Math<T>::set(-3) ? inside : zero;
  }
};

struct Hardswish {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z * Hardtanh{0, 6}.forward(z + Math<T>::set(3)) * Math<T>::set(1.0 / 6);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T three = Math<T>::set(3);
    const T inside = dy * (z * Math<T>::set(1.0 / 3) + Math<T>::set(0.5));
    const T not_below = z < three ? inside : dy;
    return z <= -three ? Math<T>::set(0) : not_below;
  }
};

// tanh(log(1 + e^z)) = n / (n + 2) with n = e^z (e^z + 2): no logarithm. Past 20 it is 1 in float
// (and past 40 in double), where n would soon overflow.
struct Mish {
  template <class T>
  CNNGRAPH_ELEMENTWISE T forward(T z) const {
    return z * tanh_of_softplus(z);
  }
  template <class T>
  CNNGRAPH_ELEMENTWISE T backward(T z, T dy) const {
    const T t = tanh_of_softplus(z);
    return dy * (t + z * sigmoid(z) * (Math<T>::set(1) - t * t));
  }

 private:
  template <class T>
  static CNNGRAPH_ELEMENTWISE T tanh_of_softplus(T z) {
    const T limit = Math<T>::set(40), two = Math<T>::set(2);
    const T e = Math<T>::exp(z > limit ? limit : z);
    const T n = e * (e + two);
    return n / (n + two);
  }
};

// Calls `body` with the functor of an activation.
template <class Body>
inline void with_activation(Activation activation, ActivationArguments arguments, Body body) {
  switch (activation) {
    case Activation::identity:
      return body(Identity{});
    case Activation::relu:
      return body(ReLU{});
    case Activation::hardtanh:
      return body(Hardtanh{arguments.first, arguments.second});
    case Activation::leaky_relu:
      return body(LeakyReLU{arguments.first});
    case Activation::elu:
      return body(ELU{arguments.first});
    case Activation::silu:
      return body(SiLU{});
    case Activation::gelu:
      return body(GELU{});
    case Activation::gelu_tanh:
      return body(TanhGELU{});
    case Activation::sigmoid:
      return body(Sigmoid{});
    case Activation::tanh:
      return body(Tanh{});
    case Activation::hardsigmoid:
      return body(Hardsigmoid{});
    case Activation::hardswish:
      return body(Hardswish{});
    case Activation::mish:
      return body(Mish{});
  }
}

// Whether there is a residual, as a type, so that loops without one have no extra cost.
template <bool there>
struct Residual {
  static constexpr bool given = there;
};

template <class Body>
inline void with_residual(bool given, Body body) {
  if (given) {
    body(Residual<true>{});
  } else {
    body(Residual<false>{});
  }
}

}  // namespace CNNGRAPH_CAPABILITY
}  // namespace cnngraph
