namespace praetor {}
