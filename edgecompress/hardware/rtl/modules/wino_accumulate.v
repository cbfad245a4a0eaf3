// What is held plus new results. Exact results are modulo 2^HELD_BITS; others lose low bits, more
// or fewer by mode, and the sum saturates.
module wino_accumulate #(
    parameter OMEGA = 4,
    parameter EXACT = 1,
    parameter RESULT_BITS = 26,
    parameter HELD_BITS = 26,
    parameter DROPPED = 0,
    parameter BYPASS_DROPPED = 0,
    parameter BYPASS_RAISED = 0
) (
    input  wire                               bypass,
    input  wire                               first,    // nothing is held yet
    input  wire [OMEGA*OMEGA*HELD_BITS-1:0]   held,
    input  wire [OMEGA*OMEGA*RESULT_BITS-1:0] results,
    output reg  [OMEGA*OMEGA*HELD_BITS-1:0]   next
);
    reg signed [RESULT_BITS-1:0] result;
    reg signed [HELD_BITS-1:0]   old;
    reg signed [RESULT_BITS:0]   sum;
    reg                          fits;
    // Signed words extend when they are added; an exact sum is modulo 2^HELD_BITS.
    /* verilator lint_off WIDTH */
    /* verilator lint_off UNUSED */
    always @(*) begin : add
        integer i;
        for (i = 0; i < OMEGA*OMEGA; i = i + 1) begin
            result = $signed(results[i*RESULT_BITS +: RESULT_BITS]);
            old = first ? {HELD_BITS{1'b0}} : held[i*HELD_BITS +: HELD_BITS];
            if (EXACT != 0) begin
                sum = old + result;
                fits = 1'b1;
            end else begin
                if (bypass) result = (result <<< BYPASS_RAISED) >>> BYPASS_DROPPED;
                else result = result >>> DROPPED;
                sum = old + result;
                fits = (&sum[RESULT_BITS:HELD_BITS-1]) | ~(|sum[RESULT_BITS:HELD_BITS-1]);
            end
            next[i*HELD_BITS +: HELD_BITS] =
                fits ? sum[HELD_BITS-1:0] : {sum[RESULT_BITS], {(HELD_BITS-1){~sum[RESULT_BITS]}}};
        end
    end
    /* verilator lint_on UNUSED */
    /* verilator lint_on WIDTH */
endmodule

// An accumulator as a result: in the 3x3 mode @DIVISION.
module wino_finish #(
    parameter HELD_BITS = 26,
    parameter OUTPUT_BITS = 24
) (
    input  wire                   bypass,
    input  wire [HELD_BITS-1:0]   sum,
    output wire [OUTPUT_BITS-1:0] result
);
    wire [OUTPUT_BITS-1:0] part0 = sum[HELD_BITS-1 -: OUTPUT_BITS];
@DIVISION_STEPS
    assign result = bypass ? sum[OUTPUT_BITS-1:0] : @QUOTIENT;
endmodule
